"""Answers: sentences quoted or worded from cited rows, each checked against them before it is sent."""
