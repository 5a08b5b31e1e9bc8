"""Orthogonal Matching Pursuit of many targets over one dictionary."""
