// The official OpenAI and MCP clients for TypeScript against a running Docmill, unchanged.
//
//     npm install
//     DOCMILL_URL=http://127.0.0.1:8080 DOCMILL_API_KEY=… node clients.mjs "When is the pier closed?" [docmill]
import assert from 'node:assert/strict'
import OpenAI from 'openai'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'

const url = process.env.DOCMILL_URL.replace(/\/$/, '')
const key = process.env.DOCMILL_API_KEY
const question = process.argv[2] ?? 'When is the pier closed?'

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key })
const messages = [{ role: 'user', content: question }]
const whole = await openai.chat.completions.create({ model: 'docmill', messages })
const text = whole.choices[0].message.content
assert.ok(text && whole.choices[0].message.docmill.sentences.length)
let spoken = ''
for await (const chunk of await openai.chat.completions.create({ model: 'docmill', messages, stream: true })) {
  spoken += chunk.choices[0]?.delta?.content ?? ''
}
assert.equal(spoken, text)
const vectors = await openai.embeddings.create({ model: 'docmill-embedding', input: ['a boat', 'a meadow'] })
assert.ok(vectors.data[0].embedding.length > 100)
console.log('openai:', text.split('\n')[0])

async function use(transport, what) {
  const client = new Client({ name: 'trial', version: '1' })
  await client.connect(transport)
  assert.equal((await client.listTools()).tools.length, 5)
  const answer = await client.callTool({ name: 'answer', arguments: { question } })
  assert.ok(answer.structuredContent.found, JSON.stringify(answer))
  const document_id = answer.structuredContent.sentences[0].citations[0].document_id
  for (const [name, args] of [['search', { query: question }], ['get_document', { document_id }], ['get_page', { document_id }], ['list_collections', {}]]) {
    const result = await client.callTool({ name, arguments: args })
    assert.ok(!result.isError && result.content[0].text, JSON.stringify(result))
  }
  await client.close()
  console.log(`mcp over ${what}: five tools`)
}

const requestInit = { headers: { Authorization: `Bearer ${key}` } }
await use(new StreamableHTTPClientTransport(new URL(`${url}/mcp`), { requestInit }), 'streamable HTTP')
if (process.argv[3]) {
  const env = { DOCMILL_URL: url, DOCMILL_API_KEY: key, PATH: process.env.PATH }
  await use(new StdioClientTransport({ command: process.argv[3], args: ['mcp'], env }), 'stdio')
}
