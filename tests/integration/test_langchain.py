"""The LangChain adapters, under langchain-core's own runnables, over a real store and every memory."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnablePassthrough
from langchain_core.runnables.history import RunnableWithMessageHistory
from pydantic import TypeAdapter

from integrations.langchain import RagstreamChatMessageHistory, RagstreamRetriever
from local_stack.models.service import ModelService
from local_stack.servers.aws import Ministack
from local_stack.servers.memorydb import MemoryDB
from local_stack.servers.postgres import VectorStore
from local_stack.standins.documentdb.server import DocumentDB
from memory import MemoryConfig, open_store
from retrieval.access import Scope
from retrieval.conversation.turns import Session
from schemas.caller import Caller
from schemas.errors import ConfigurationError
from service.assistant import AssistantService
from tests.servers import new_database, unique
from tests.serving import NOTES_OF_TWO_TENANTS, PROBE, parsed, pipeline, written

ACME = Caller({"tenant": "acme", "sub": "ada"})
GLOBEX = Caller({"tenant": "globex", "sub": "bob"})
SETTINGS = {"busy_timeout": "5s", "timeout_seconds": 2.0}


@pytest.fixture(scope="module")
def opened(
    vectors: VectorStore, memorydb: MemoryDB, instant_model: ModelService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., AssistantService]]:
    """Opens an assistant over notes of two tenants; a memory may be named."""
    folder = tmp_path_factory.mktemp("langchain")
    for dsn in new_database(vectors):
        document = pipeline(folder, dsn, instant_model.endpoint, memorydb.endpoint)
        with written(parsed(document), *NOTES_OF_TWO_TENANTS):
            pass
        yield partial(opened_with, document)


def opened_with(document: dict[str, Any], **changes: Any) -> AssistantService:
    return AssistantService(parsed(document | changes))


@pytest.fixture(scope="module")
def service(opened: Callable[..., AssistantService]) -> Iterator[AssistantService]:
    with opened() as assistant:
        yield assistant


@pytest.fixture(params=["dynamodb", "documentdb", "memorydb"])
def remembering(
    request: pytest.FixtureRequest,
    opened: Callable[..., AssistantService],
    aws: Ministack,
    documentdb: DocumentDB,
    memorydb: MemoryDB,
    document_database: str,
) -> Iterator[AssistantService]:
    """An assistant with each memory in turn."""
    memories: dict[str, dict[str, Any]] = {
        "dynamodb": {"table": unique("memory"), **aws.endpoint},
        "documentdb": {"database": document_database, "uri": documentdb.endpoint["uri"]},
        "memorydb": {"prefix": unique("memory"), **memorydb.endpoint},
    }
    memory = {"type": request.param, **SETTINGS, **memories[request.param]}
    adapter: TypeAdapter[MemoryConfig] = TypeAdapter(MemoryConfig)
    with closing(open_store(adapter.validate_python(memory))) as store:
        store.check()
    with opened(memory=memory) as assistant:
        yield assistant


def test_documents_have_the_text_and_say_which_row_it_is(service: AssistantService) -> None:
    retriever = RagstreamRetriever(service=service, k=1, scope=Scope(caller=ACME))
    (document,) = retriever.invoke(PROBE)
    assert "three years" in document.page_content
    payload = service.search(PROBE, 1, Scope(caller=ACME))
    assert document.metadata == {
        name: value for name, value in payload["results"][0].items() if name != "chunk_text"
    } | {"searchable_as_of": payload["freshness"]["searchable_as_of"]}
    assert (document.metadata["table"], document.metadata["key"]) == ("public.notes", {"id": 1})
    assert asyncio.run(retriever.ainvoke(PROBE)) == [document]
    assert retriever.batch([PROBE, PROBE]) == [[document], [document]]


def test_the_caller_is_of_the_configuration_of_each_call(service: AssistantService) -> None:
    retriever = RagstreamRetriever(service=service, caller_key="asks", scope=Scope(tables=("public.notes",)))
    crossings = []

    def ids_of(caller: object) -> set[int]:
        config: Any = {"configurable": {"asks": caller}}
        sync, later = retriever.invoke(PROBE, config), asyncio.run(retriever.ainvoke(PROBE, config))
        return {document.metadata["key"]["id"] for document in (*sync, *later)}

    with ThreadPoolExecutor(4) as pool:
        for caller, theirs in ((ACME, {1, 2}), (dict(GLOBEX.claims), {3})):
            crossings += [ids - theirs for ids in pool.map(ids_of, [caller] * 8) if ids != theirs]
    assert crossings == []
    for nobody in ({}, {"configurable": {"asks": "globex"}}, {"configurable": {"other": GLOBEX}}):
        with pytest.raises(ConfigurationError) as refused:
            retriever.invoke(f"{PROBE} asks=globex", nobody)  # type: ignore[arg-type] # a configuration of no type
        assert refused.value.condition == "CALLER_MISSING"
    with pytest.raises(TypeError):
        retriever.invoke(PROBE, {"configurable": {"asks": ACME}}, caller=GLOBEX)


def test_a_chain_answers_from_the_rows_of_its_caller(service: AssistantService) -> None:
    def texts(documents: list[Document]) -> str:
        return "\n".join(document.page_content for document in documents)

    retriever = RagstreamRetriever(service=service, k=1, caller_key="asks")
    prompt = ChatPromptTemplate.from_template("{context}\n\n{question}")
    chain = {"context": retriever | texts, "question": RunnablePassthrough()} | prompt
    asked: Any = {"configurable": {"asks": ACME}}
    assert "three years" in chain.invoke(PROBE, asked).to_string()
    answering = chain | FakeListChatModel(responses=["Three years."]) | StrOutputParser()
    assert answering.invoke(PROBE, asked) == "Three years."


def test_nothing_relevant_is_no_document_unless_it_is_asked_for(opened: Callable[..., AssistantService]) -> None:
    with opened(retrieval={"min_similarity": 0.999}) as strict:
        about: Any = {"service": strict, "scope": Scope(caller=ACME)}
        assert RagstreamRetriever(**about).invoke("zzzz qqqq") == []
        assert RagstreamRetriever(**about, abstain=False).invoke("zzzz qqqq") != []


def test_a_conversation_is_one_session_of_the_memory(remembering: AssistantService) -> None:
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{question}")])
    seen: list[str] = []

    def recorded(value: Any) -> Any:
        seen.append(value.to_string())
        return value

    with pytest.warns(DeprecationWarning, match="RunnableWithMessageHistory"):
        chain = RunnableWithMessageHistory(
            prompt | recorded | FakeListChatModel(responses=["One.", "Two.", "Three."]),
            lambda name: RagstreamChatMessageHistory(remembering, name, ACME),
            input_messages_key="question",
            history_messages_key="history",
        )
    config: Any = {"configurable": {"session_id": "talk"}}
    assert [chain.invoke({"question": text}, config).content for text in ("First?", "Second?")] == ["One.", "Two."]
    assert asyncio.run(chain.ainvoke({"question": "Third?"}, config)).content == "Three."
    assert seen[-1] == "Human: First?\nAI: One.\nHuman: Second?\nAI: Two.\nHuman: Third?"
    turns = [
        (exchange["turn"], exchange["question"], exchange["answer"]) for exchange in remembering.exchanges(ACME, "talk")
    ]
    assert turns == [(1, "First?", "One."), (2, "Second?", "Two."), (3, "Third?", "Three.")]
    answer = remembering.ask(PROBE, Scope(caller=ACME), Session("talk"))
    history = RagstreamChatMessageHistory(remembering, "talk", ACME)
    assert history.messages[-1].content == answer["answer"]
    assert history.messages[-1].response_metadata == {"turn": 4, "citations": answer["citations"]}
    history.clear()
    assert (history.messages, remembering.sessions(ACME)) == ([], [])
    history.clear()


def test_a_question_waits_for_its_answer_and_tools_are_left_out(service: AssistantService) -> None:
    history = RagstreamChatMessageHistory(service, unique("talk"), ACME)
    history.add_user_message("Which mast?")
    history.add_user_message("The Skua?")
    assert [message.content for message in history.messages] == ["Which mast?\nThe Skua?"]
    assert RagstreamChatMessageHistory(service, history.session, ACME).messages == []
    history.add_messages([
        SystemMessage("Be short."),
        AIMessage("", tool_calls=[{"name": "search", "args": {}, "id": "1"}]),
        ToolMessage("a mast", tool_call_id="1"),
        AIMessage("It is painted."),
    ])  # fmt: skip
    kept = RagstreamChatMessageHistory(service, history.session, ACME).messages
    assert [message.content for message in kept] == ["Which mast?\nThe Skua?", "It is painted."]
    for refused in (AIMessage("alone"), ChatMessage(content="x", role="narrator")):
        with pytest.raises(ConfigurationError):
            history.add_messages([HumanMessage("a"), AIMessage("b"), refused])
    assert history.messages == kept


def test_a_message_with_an_id_is_kept_once(service: AssistantService) -> None:
    history = RagstreamChatMessageHistory(service, unique("talk"), ACME)
    for _ in range(3):
        history.add_messages([HumanMessage("What?", id="m-1"), AIMessage("That.")])
    assert [message.content for message in history.messages] == ["What?", "That."]
    with pytest.raises(ConfigurationError) as refused:
        history.add_messages([HumanMessage("Another?", id="m-1"), AIMessage("This.")])
    assert refused.value.condition == "TURN_ID_USED"


def test_writers_at_once_leave_every_question_before_its_answer(service: AssistantService) -> None:
    name = unique("talk")

    def talk(writer: int) -> None:
        history = RagstreamChatMessageHistory(service, name, ACME)
        for at in range(2):
            history.add_user_message(f"{writer}.{at}?")
            history.add_ai_message(f"{writer}.{at}!")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(talk, range(4)))
    said = [str(message.content) for message in RagstreamChatMessageHistory(service, name, ACME).messages]
    assert [text.replace("!", "?") for text in said[1::2]] == said[::2]
    assert len(set(said)) == 16


def test_a_session_is_of_its_user_and_of_what_they_may_see(service: AssistantService) -> None:
    name = unique("talk")
    mine = RagstreamChatMessageHistory(service, name, ACME)
    mine.add_messages([HumanMessage("secret?"), AIMessage("secret!")])
    theirs = RagstreamChatMessageHistory(service, name, GLOBEX)
    for refused in (
        lambda: theirs.messages, theirs.clear, lambda: theirs.add_messages([HumanMessage("a"), AIMessage("b")]),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError) as error:
            refused()
        assert (error.value.condition, "secret" in str(error.value)) == ("SESSION_OF_ANOTHER", False)
    elsewhere = Caller({"tenant": "globex", "sub": "ada"})
    assert RagstreamChatMessageHistory(service, name, elsewhere).messages == []
    assert len(mine.messages) == 2


def test_importing_the_adapters_switches_no_tracing_on() -> None:
    program = (
        "import sys, socket\n"
        "socket.socket.connect = lambda *_: sys.exit('connects')\n"
        "import integrations.langchain\n"
        "from langsmith.utils import tracing_is_enabled\n"
        "from langchain_core.tracers.context import _get_trace_callbacks, _tracing_v2_is_enabled\n"
        "print(tracing_is_enabled(), _tracing_v2_is_enabled())"
    )
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("LANGSMITH", "LANGCHAIN"))}
    done = subprocess.run([sys.executable, "-c", program], env=quiet, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
