"""What an emulated world is made of, and how it comes into being."""
