"""The businesses that calls belong to."""
