"""The assistant in LangChain, by langchain-core alone: a retriever, and a history of chat messages.

Importing this switches no tracing on. Where a program switches LangSmith's on by itself, that sends the texts of questions and
found rows there.
"""

from integrations.langchain.history import RagstreamChatMessageHistory
from integrations.langchain.retriever import RagstreamRetriever

__all__ = ["RagstreamChatMessageHistory", "RagstreamRetriever"]
