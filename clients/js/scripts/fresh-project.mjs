// Owns a fresh Vite project with the packed package: it checks the types under `strict` and builds.
//
//     node scripts/fresh-project.mjs DIRECTORY
//
// The built page is in DIRECTORY/dist. Needs a built package.

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

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
run(process.execPath, ['node_modules/typescript/bin/tsc', '--noEmit'], directory);
process.stdout.write(run(process.execPath, ['node_modules/vite/bin/vite.js', 'build', '--logLevel', 'warn'], directory));
