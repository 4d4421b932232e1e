"""The tools: importing `tools.all` declares them."""
