// Owns a hub made of strings: a `fetch` answering streams piece by piece.

/** Collects the requests; `answer(request)` gives the response. */
export function fakeFetch(answer) {
  const requests = [];
  const fetch = async (url, init = {}) => {
    const request = { path: new URL(url).pathname, query: new URL(url).searchParams, headers: init.headers, signal: init.signal };
    request.body = init.body && JSON.parse(init.body);
    requests.push(request);
    init.signal?.throwIfAborted();
    const response = await answer(request, requests.length);
    // A real stream ends with its request.
    if (!response.body || !init.signal) return response;
    const body = response.body.pipeThrough(new TransformStream(), { signal: init.signal });
    return new Response(body, { status: response.status, headers: response.headers });
  };
  return { fetch, requests };
}

/** A stream of these pieces; it stays open unless `ends`. */
export function streamOf(pieces, { ends = false } = {}) {
  const encoder = new TextEncoder();
  const body = new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(typeof piece === 'string' ? encoder.encode(piece) : piece);
      if (ends) controller.close();
    },
  });
  return new Response(body, { headers: { 'content-type': 'text/event-stream; charset=utf-8' } });
}

export const refusal = (status, code, more = {}, headers = {}) =>
  new Response(JSON.stringify({ error: { code, message: `refused: ${code}`, ...more } }), { status, headers });

export const connected = (id, more = {}) =>
  `retry: 10\nevent: connected\ndata: ${JSON.stringify({ clientId: 'c1', timestamp: 1, topics: [], resumed: false, ...more })}\nid: ${id}\n\n`;

export const batch = (id, ...items) => `event: batch\ndata: ${JSON.stringify(items)}\nid: ${id}\n\n`;

/** Waits for a condition. */
export async function until(condition, what = 'the condition') {
  for (const end = Date.now() + 30_000; !condition(); ) {
    if (Date.now() > end) throw new Error(`in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
