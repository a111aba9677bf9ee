// Owns the parts shared by the three readers: their options, the line printed per stream event, and their
// end. Each library's connect, reconnect and resume stay in its own file: the tests are about them.
//
//     node <reader>.mjs --url http://127.0.0.1:PORT --topics a,b [--types T,U] [--until TYPE [--until-data DATA]]
//         [--timeout SECONDS] [--browser chromium|firefox]
//
// Exit codes: 0 `--until` was seen; 1 timeout or crash; 2 bad usage; 3 the library gave up for good (type
// `$closed`).

import { parseArgs } from 'node:util';

const USAGE = 'usage: --url URL --topics a,b [--types price,connected] [--until TYPE [--until-data DATA]] [--timeout SECONDS]';

/** The control events of the hub. Without `--types` a reader listens to these and to messages. */
const CONTROL_TYPES = 'connected,gap,shutdown';

/** Reads the options and starts the deadline. `name` is printed as `reader` on every line. */
export function startReader(name) {
  const options = parseOptions();
  const onEnd = [];
  let ended = false;

  async function end(code, message) {
    if (ended) return;
    ended = true;
    if (message) console.error(`${name}: ${message}`);
    for (const close of onEnd) await close().catch(() => {});
    process.exit(code);
  }

  /** Prints one line. Ends the process if the event matches `--until`. */
  function print(event) {
    if (ended) return;
    process.stdout.write(JSON.stringify({ reader: name, ...event }) + '\n');
    const dataMatches = options.untilData === undefined || event.data === options.untilData;
    if (event.type === options.until && dataMatches) end(0);
  }

  setTimeout(() => end(1, `timeout: ${options.timeout} s passed`), options.timeout * 1000);
  process.on('unhandledRejection', (error) => end(1, error?.stack ?? String(error)));
  process.on('SIGTERM', () => end(1, 'terminated'));

  return {
    ...options,
    onOpen: () => print({ type: '$open' }),
    onError: (message) => print({ type: '$error', message }),
    onEvent: (type, id, data) => print({ type, id, data }),
    /** The library does not reconnect. */
    onClosed(message) {
      print({ type: '$closed', message });
      end(3, `gave up: ${message}`);
    },
    /** Registers a function to run before the process exits. */
    beforeExit: (close) => onEnd.push(close),
  };
}

function parseOptions() {
  try {
    const { values } = parseArgs({
      options: {
        url: { type: 'string' },
        topics: { type: 'string' },
        types: { type: 'string', default: CONTROL_TYPES },
        until: { type: 'string' },
        'until-data': { type: 'string' },
        timeout: { type: 'string', default: '60' },
        browser: { type: 'string', default: 'chromium' },
      },
    });
    if (!values.url || !values.topics) throw new Error('--url and --topics are needed');
    const timeout = Number(values.timeout);
    if (!(timeout > 0)) throw new Error(`--timeout ${values.timeout} is not a number of seconds`);

    const streamUrl = new URL('/events/stream', values.url);
    streamUrl.searchParams.set('topics', values.topics);
    return {
      origin: streamUrl.origin,
      streamUrl: streamUrl.href,
      types: ['message', ...values.types.split(',').filter((type) => type && type !== 'message')],
      until: values.until,
      untilData: values['until-data'],
      timeout,
      browser: values.browser,
    };
  } catch (error) {
    console.error(`${error.message}\n${USAGE}`);
    process.exit(2);
  }
}
