"""Text models on Amazon Bedrock, by Converse and ConverseStream."""
