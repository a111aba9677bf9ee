// Owns a page with every hook and the custom element.

import { StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { Fanfare, type FanfareEvent } from 'fanfare-client';
import { FanfareProvider, useFanfare, useMap, useTopic } from 'fanfare-client/react';
import 'fanfare-client/element';

interface Note {
  text: string;
}

function Notes() {
  const { client, state } = useFanfare();
  const [topic, setTopic] = useState('react:one');
  const [count, setCount] = useState(0);
  const last: FanfareEvent<Note> | undefined = useTopic<Note>(topic, () => setCount((count) => count + 1));
  const prices: ReadonlyMap<string, number> = useMap<number>('react-prices');
  const total = [...prices.values()].reduce((sum, price) => sum + price, 0);
  return (
    <main>
      <output id="state">{state}</output>
      <output id="last">{last?.data.text ?? ''}</output>
      <output id="count">{count}</output>
      <output id="prices">{`${prices.size} ${total}`}</output>
      <button id="switch" onClick={() => setTopic('react:two')}>switch</button>
      <button id="publish" onClick={() => void client.publish(topic, { text: `to ${topic}` })}>publish</button>
    </main>
  );
}

document.querySelector('#element')!.addEventListener('fanfare', (event) => {
  const { data } = (event as CustomEvent<FanfareEvent<Note>>).detail;
  document.querySelector('#from-element')!.textContent = data.text;
});

const client = new Fanfare('/events', { tabs: 'shared' });
createRoot(document.querySelector('#root')!).render(
  <StrictMode>
    <FanfareProvider client={client}>
      <Notes />
    </FanfareProvider>
  </StrictMode>,
);
