// Owns a TCP relay in front of a hub, for cutting the network of a page.

import { connect, createServer } from 'node:net';

/** Starts a relay to `url`, on the same address. `cut` ends all connections and refuses new ones until `restore`. */
export async function startRelay(url) {
  const hub = new URL(url);
  const sockets = new Set();
  const server = createServer((browser) => {
    const upstream = connect(Number(hub.port), hub.hostname);
    for (const [from, to] of [[browser, upstream], [upstream, browser]]) {
      sockets.add(from);
      from.pipe(to);
      from.on('error', () => {});
      from.on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  const listen = (port) => new Promise((resolve) => server.listen(port, hub.hostname, resolve));
  await listen(0);
  const { port } = server.address();
  return {
    url: `http://${hub.hostname}:${port}`,
    cut() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
    restore: () => listen(port),
  };
}
