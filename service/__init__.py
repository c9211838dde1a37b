"""The assistant as programs use it: what the HTTP service, MCP and LangChain share."""
