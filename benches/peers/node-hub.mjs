// A typical hub on plain Node, for scripts/compare: a Map of topics, each with the Set of its
// responses, and one `write` per response. It does not resume streams.
//
//     NODE_ENV=production node node-hub.mjs --listen 127.0.0.1:8080

import { createServer } from "node:http";

const HEARTBEAT_MS = 15_000; // like the other systems
const BACKLOG = 4096; // Node's default of 511 overflows if 10,000 clients connect at once

const topics = new Map();
const streams = new Set();

function subscribe(names, request, response) {
  response.writeHead(200, {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    Connection: "keep-alive",
  });
  response.flushHeaders();
  streams.add(response);
  for (const name of names) {
    if (!topics.has(name)) topics.set(name, new Set());
    topics.get(name).add(response);
  }
  request.on("close", () => {
    streams.delete(response);
    for (const name of names) {
      const responses = topics.get(name);
      responses?.delete(response);
      if (responses?.size === 0) topics.delete(name);
    }
  });
}

function publish(name, request, response) {
  let body = "";
  request.setEncoding("utf8");
  request.on("data", (part) => (body += part));
  request.on("end", () => {
    const event = `data: ${body}\n\n`;
    for (const stream of topics.get(name) ?? []) stream.write(event);
    response.writeHead(204).end();
  });
}

const server = createServer((request, response) => {
  const [, verb, names] = decodeURIComponent(request.url).split("/");
  if (request.method === "GET" && verb === "sub") return subscribe(names.split(","), request, response);
  if (request.method === "POST" && verb === "pub") return publish(names, request, response);
  response.writeHead(404).end();
});

setInterval(() => {
  for (const stream of streams) stream.write(": heartbeat\n\n");
}, HEARTBEAT_MS);

const [host, port] = process.argv[process.argv.indexOf("--listen") + 1].split(":");
server.listen({ host, port: Number(port), backlog: BACKLOG });
