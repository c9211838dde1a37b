"""Search as a LangChain retriever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, override

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, Field

from retrieval.access import EVERYTHING, Scope
from schemas.caller import ANYONE, Caller
from schemas.errors import ConfigurationError
from service.assistant import AssistantService


class RagstreamRetriever(BaseRetriever):
    """Finds rows that the caller may see, best first; none where nothing relevant was found.

    Who asks is fixed by `scope`, or of each call's `config["configurable"][caller_key]`; never of the query.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    service: AssistantService = Field(exclude=True, repr=False)
    """The assistant; whoever opened it closes it."""
    k: int = Field(default=10, ge=1)
    """Most documents."""
    scope: Scope = Field(default=EVERYTHING, exclude=True, repr=False)
    """Tables and conditions, and the caller where `caller_key` is None."""
    caller_key: str | None = None
    """The key of `configurable` with the caller, as a `Caller` or a mapping of claims; a call without it is refused."""
    store: str | None = None
    """The store to search; the first one without a name."""
    abstain: bool = True
    """Whether nothing is returned where no document is relevant, as `ragstream search` does; else the nearest ones are."""

    @override
    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Find documents for a query.

        Raises:
            ConfigurationError: the caller is missing, or the scope names what is not there.
            UnavailableError: the store or the model does not answer.
        """
        return super().invoke(input, config, **kwargs, caller=self._caller(config))

    @override
    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Find documents for a query, in a thread."""
        return await super().ainvoke(input, config, **kwargs, caller=self._caller(config))

    @override
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, caller: Caller = ANYONE
    ) -> list[Document]:
        result = self.service.search(query, self.k, replace(self.scope, caller=caller), self.store)
        if result["abstained"] and self.abstain:
            return []
        as_of = result["freshness"]["searchable_as_of"]
        return [_document(hit, as_of) for hit in result["results"]]

    @override
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, caller: Caller = ANYONE
    ) -> list[Document]:
        return await run_in_executor(
            None, self._get_relevant_documents, query, run_manager=run_manager.get_sync(), caller=caller
        )

    def _caller(self, config: RunnableConfig | None) -> Caller:
        if self.caller_key is None:
            return self.scope.caller
        match ensure_config(config).get("configurable", {}).get(self.caller_key):
            case Caller() as caller:
                return caller
            case Mapping() as claims:
                return Caller(claims)
            case _:
                raise ConfigurationError(
                    "the call does not say who asks",
                    condition="CALLER_MISSING",
                    hint=f'pass config={{"configurable": {{"{self.caller_key}": Caller(...)}}}}',
                )


def _document(result: Mapping[str, Any], as_of: str | None) -> Document:
    named = ("table", "key", "document_id", "chunk_index", "score", "version")
    return Document(
        id=f"{result['document_id']}:{result['chunk_index']}",
        page_content=result["chunk_text"],
        metadata={name: result[name] for name in named} | {"searchable_as_of": as_of},
    )
