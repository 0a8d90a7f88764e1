"""Requests that share steps: samples of any programs join and leave a running batch at any row."""
