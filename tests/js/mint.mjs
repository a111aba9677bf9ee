// Signs tokens with jose. Reads a JSON list of {algorithm, key, claims, headers} from standard input, and
// prints one token per line. A key is a secret or a private key in PEM. With the argument `jwks`, it reads
// {keys: [{algorithm, key, kid}]} of public keys, and prints their key set.

import { exportJWK, importPKCS8, importSPKI, SignJWT } from 'jose';
import { readFile } from 'node:fs/promises';

const input = JSON.parse(await readFile('/dev/stdin', 'utf8'));

if (process.argv[2] === 'jwks') {
  const keys = [];
  for (const { algorithm, key, kid } of input.keys) {
    const jwk = await exportJWK(await importSPKI(key, algorithm, { extractable: true }));
    keys.push({ ...jwk, alg: algorithm, kid, use: 'sig' });
  }
  console.log(JSON.stringify({ keys }));
} else {
  for (const { algorithm, key, claims, headers } of input) {
    // A secret has any bytes: one of the attacks takes a public key for it.
    const isSecret = algorithm.startsWith('HS');
    const imported = isSecret ? new TextEncoder().encode(key) : await importPKCS8(key, algorithm);
    const token = new SignJWT(claims).setProtectedHeader({ alg: algorithm, ...headers });
    console.log(await token.sign(imported));
  }
}
