"""Figures: on paper (`plots`) and to touch (`widgets`)."""
