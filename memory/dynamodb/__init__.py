"""Conversations and profiles in Amazon DynamoDB."""
