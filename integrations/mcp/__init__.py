"""The assistant as tools of the Model Context Protocol, revision 2025-11-25 and those before it that the package `mcp` speaks."""
