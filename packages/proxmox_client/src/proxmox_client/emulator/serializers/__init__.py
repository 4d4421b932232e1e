"""Conversion of the state to the rows and objects of API responses."""
