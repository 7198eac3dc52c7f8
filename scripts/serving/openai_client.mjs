// Prints the vectors of texts, as JSON: OpenAI's client for Node.js, which asks for base64 unless it is told otherwise.
//
//     OPENAI_BASE_URL=http://127.0.0.1:3000/v1 OPENAI_API_KEY=none node --input-type=module - MODEL '["a text"]'
//
// reads this file from standard input, in a folder where npm has installed openai.

import OpenAI from "openai";

const [model, texts] = process.argv.slice(2);
const answer = await new OpenAI().embeddings.create({ model, input: JSON.parse(texts) });
console.log(JSON.stringify(answer.data.map((row) => Array.from(row.embedding))));
