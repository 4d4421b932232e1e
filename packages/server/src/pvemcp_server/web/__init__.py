"""The admin pages and what they tell people."""
