// Owns the checks of the built package: its sizes, its exports by publint, its types by "are the types wrong".

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

process.chdir(join(dirname(fileURLToPath(import.meta.url)), '..'));
const kilobyte = 1000;
const size = (...files) => files.map((file) => gzipSync(readFileSync(`dist/${file}.js`), { level: 9 }).length).reduce((a, b) => a + b);

// `index` is loaded by every page; the others when they are needed.
const limits = [
  ['core', 4.5 * kilobyte, size('index')],
  ['core with shared tabs', 7 * kilobyte, size('index', 'tabs')],
  ['element without core', 1 * kilobyte, size('element')],
];
let failed = false;
for (const [name, limit, bytes] of limits) {
  console.log(`${name}: ${bytes} of ${limit} bytes gzipped`);
  failed ||= bytes > limit;
}
if (failed) process.exit(1);

const directory = mkdtempSync(join(tmpdir(), 'fanfare-client-'));
try {
  const run = (command, ...args) => execFileSync(command, args, { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' });
  const [packed] = JSON.parse(run('npm', 'pack', '--json', '--ignore-scripts', '--pack-destination', directory));
  const file = join(directory, packed.filename);
  process.stdout.write(run('node_modules/.bin/publint', 'run', file, '--strict', '--pack', 'npm'));
  // Node's `require` and the old resolution of TypeScript are not supported: the package has ES modules only.
  process.stdout.write(run('node_modules/.bin/attw', file, '--profile', 'esm-only', '--no-color'));
} finally {
  rmSync(directory, { recursive: true });
}
