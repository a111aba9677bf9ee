// Owns the build: ES modules by rolldown, types by the TypeScript compiler.

import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

process.chdir(join(dirname(fileURLToPath(import.meta.url)), '..'));
rmSync('dist', { recursive: true, force: true });

// One build per entry: react and element use the index of the package, and share no chunk with it.
for (const entry of ['index', 'react', 'element']) {
  const bundle = await rolldown({
    input: `src/${entry}.ts`,
    external: (id) => id === 'react' || (entry !== 'index' && id === './index.js'),
    platform: 'neutral',
    // Chunks loaded later import from the index itself, without a chunk between.
    preserveEntrySignatures: 'allow-extension',
  });
  await bundle.write({
    dir: 'dist',
    format: 'esm',
    minify: true,
    entryFileNames: '[name].js',
    // Stable names: the demo page of the hub contains these files.
    chunkFileNames: '[name].js',
  });
  await bundle.close();
}
execFileSync(process.execPath, ['node_modules/typescript/bin/tsc'], { stdio: 'inherit' });
