"""The official OpenAI and MCP clients for Python against a running Docmill, unchanged.

    pip install -r requirements.txt
    DOCMILL_URL=http://127.0.0.1:8080 DOCMILL_API_KEY=… python clients.py "When is the pier closed?" [docmill]

With the path of the binary as second argument the MCP server over stdio is tried as well. Ends with 1 when anything is
not as it should be.
"""

import asyncio
import os
import sys

import httpx2
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from openai import AuthenticationError, OpenAI

URL, KEY = os.environ["DOCMILL_URL"].rstrip("/"), os.environ["DOCMILL_API_KEY"]
QUESTION = sys.argv[1] if len(sys.argv) > 1 else "When is the pier closed?"


def openai_clients() -> None:
    client = OpenAI(base_url=f"{URL}/v1", api_key=KEY)
    messages = [{"role": "user", "content": QUESTION}]
    whole = client.chat.completions.create(model="docmill", messages=messages)
    text = whole.choices[0].message.content
    citations = whole.choices[0].message.model_extra["docmill"]["sentences"]
    assert text and citations, whole
    stream = client.chat.completions.create(
        model="docmill", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    spoken = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert spoken == text, (spoken, text)
    assert chunks[-1].usage is not None
    vectors = client.embeddings.create(model="docmill-embedding", input=["a boat", "a meadow"])
    assert len(vectors.data) == 2 and len(vectors.data[0].embedding) > 100
    assert "docmill" in [model.id for model in client.models.list()]
    assert client.models.retrieve("docmill").id == "docmill"
    try:
        OpenAI(base_url=f"{URL}/v1", api_key="dmk_wrong", max_retries=0).models.list()
        raise AssertionError("a wrong key was accepted")
    except AuthenticationError:
        pass
    print("openai:", text.splitlines()[0])


async def use(session: ClientSession, what: str) -> None:
    await session.initialize()
    names = sorted(tool.name for tool in (await session.list_tools()).tools)
    assert names == ["answer", "get_document", "get_page", "list_collections", "search"], names
    answer = await session.call_tool("answer", {"question": QUESTION})
    assert not answer.is_error and answer.structured_content["found"], answer
    document = answer.structured_content["sentences"][0]["citations"][0]["document_id"]
    for name, arguments in [
        ("search", {"query": QUESTION, "k": 3}),
        ("get_document", {"document_id": document}),
        ("get_page", {"document_id": document}),
        ("list_collections", {}),
    ]:
        result = await session.call_tool(name, arguments)
        assert not result.is_error and result.content[0].text, (name, result)
    print(f"mcp over {what}: five tools")


async def mcp_clients() -> None:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as http:
        async with streamable_http_client(f"{URL}/mcp", http_client=http) as (read, write):
            async with ClientSession(read, write) as session:
                await use(session, "streamable HTTP")
    if len(sys.argv) > 2:
        server = StdioServerParameters(
            command=sys.argv[2], args=["mcp"], env={"DOCMILL_URL": URL, "DOCMILL_API_KEY": KEY, "PATH": os.environ["PATH"]}
        )
        async with stdio_client(server) as (read, write):
            async with ClientSession(read, write) as session:
                await use(session, "stdio")


openai_clients()
asyncio.run(mcp_clients())
