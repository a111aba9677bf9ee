// Owns a fresh project with the packed package: it checks the types under `strict`, and builds the page by Vite and by
// webpack, the bundler of Next.js.
//
//     node scripts/fresh-project.mjs DIRECTORY
//
// The built pages are in DIRECTORY/vite and DIRECTORY/webpack. Needs a built package.

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import webpack from 'webpack';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const directory = process.argv[2];
const modules = join(directory, 'node_modules');
const run = (command, args, cwd) => execFileSync(command, args, { cwd, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' });

// The package as npm would install it; the tools are those of this repository.
cpSync(join(root, 'test/project'), directory, { recursive: true });
mkdirSync(join(modules, 'fanfare-client'), { recursive: true });
const [packed] = JSON.parse(run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', directory], root));
run('tar', ['-xzf', packed.filename, '-C', join(modules, 'fanfare-client'), '--strip-components=1'], directory);
mkdirSync(join(modules, '@types'));
for (const name of ['react', 'react-dom', 'typescript', 'vite', '@types/react', '@types/react-dom']) {
  symlinkSync(join(root, 'node_modules', name), join(modules, name));
}
writeFileSync(join(directory, 'package.json'), '{"private":true,"type":"module","dependencies":{"fanfare-client":"*"}}');

const tool = (path, ...args) => process.stdout.write(run(process.execPath, [`node_modules/${path}`, ...args], directory));
tool('typescript/bin/tsc', '--noEmit');
tool('vite/bin/vite.js', 'build', '--logLevel', 'warn', '--outDir', 'vite');
tool('typescript/bin/tsc', '--noEmit', 'false', '--outDir', 'compiled');
await buildWithWebpack();

async function buildWithWebpack() {
  const stats = await promisify(webpack)({
    mode: 'production',
    context: directory,
    entry: './compiled/main.js',
    output: { path: join(directory, 'webpack/assets'), publicPath: '/assets/', filename: 'main.js' },
  });
  if (stats.hasErrors()) throw new Error(stats.toString('errors-only'));
  const page = readFileSync(join(directory, 'index.html'), 'utf8');
  writeFileSync(join(directory, 'webpack/index.html'), page.replace('/main.tsx', '/assets/main.js'));
}
