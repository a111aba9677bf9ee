"""Owns the tests against a hub: `FANFARE_URL` names it, for example `http://127.0.0.1:8080/events`.

The streams of this hub end every moment (`stream.max_lifetime`): every test is also one of resuming.
"""

import asyncio
import os
import threading
import unittest
import uuid
from contextlib import aclosing

import httpx

from fanfare_client import AsyncFanfare, Event, Fanfare, FanfareError, Gap

URL = os.environ.get("FANFARE_URL", "")
COUNT = 200


@unittest.skipUnless(URL, "FANFARE_URL names no hub")
class HubTest(unittest.TestCase):
    def setUp(self) -> None:
        self.topic = f"python:{uuid.uuid4().hex}"

    def test_a_subscription_gets_each_event_once_over_many_streams(self) -> None:
        with Fanfare(URL) as hub:
            publisher = threading.Thread(target=self._publish)
            publisher.start()
            seen: list[Event] = []
            gaps: list[Gap] = []
            for event in hub.subscribe(f"{self.topic}:*", last_event_id="earliest", on_gap=gaps.append):
                seen.append(event)
                if len(seen) == COUNT:
                    break
            publisher.join()
            self.assertEqual([event.data["n"] for event in seen], list(range(COUNT)))
            self.assertEqual({(event.topic, event.type, event.key) for event in seen}, {(f"{self.topic}:a", "n", "k")})
            self.assertEqual(gaps, [])
            # A later program continues after any event.
            rest = hub.subscribe(f"{self.topic}:*", last_event_id=seen[COUNT - 3].id)
            self.assertEqual([next(rest).data["n"], next(rest).data["n"]], [COUNT - 2, COUNT - 1])

    def _publish(self) -> None:
        with Fanfare(URL) as hub:
            for n in range(COUNT):
                hub.publish(f"{self.topic}:a", {"n": n}, type="n", key="k")

    def test_the_answer_names_the_place_and_an_id_makes_it_idempotent(self) -> None:
        with Fanfare(URL) as hub:
            first = hub.publish(self.topic, "text", id="one")
            again = hub.publish(self.topic, "text", id="one")
            self.assertEqual((first.topic, first.sequence), (self.topic, again.sequence))
            self.assertEqual(next(hub.subscribe(self.topic, last_event_id="earliest")).data, "text")

    def test_types_are_filtered_and_refusals_are_errors(self) -> None:
        with Fanfare(URL) as hub:
            hub.publish(self.topic, 1, type="a")
            hub.publish(self.topic, 2, type="b")
            self.assertEqual(next(hub.subscribe(self.topic, types=["b"], last_event_id="earliest")).data, 2)
            with self.assertRaises(FanfareError) as caught:
                hub.publish("not a topic", 1)
            self.assertEqual((caught.exception.status, caught.exception.code), (400, "bad_topic"))
            with self.assertRaises(FanfareError):
                next(hub.subscribe("not a topic"))

    def test_a_cursor_of_another_hub_is_a_gap(self) -> None:
        with Fanfare(URL) as hub:
            hub.publish(self.topic, 1)
            gaps: list[Gap] = []
            other = "00000001~q8I2II7.1:0"
            events = hub.subscribe(self.topic, last_event_id=other, on_gap=gaps.append)
            self.assertEqual(next(events).data, 1)
            self.assertEqual([gap.reason for gap in gaps], ["epoch"])

    def test_asyncio_gets_each_event_once_over_many_streams(self) -> None:
        async def run() -> list[int]:
            async with AsyncFanfare(URL) as hub:
                async def publish() -> None:
                    for n in range(COUNT):
                        await hub.publish(self.topic, n)

                publisher = asyncio.create_task(publish())
                seen: list[int] = []
                async with aclosing(hub.subscribe(self.topic, last_event_id="earliest")) as events:
                    async for event in events:
                        seen.append(event.data)
                        if len(seen) == COUNT:
                            break
                await publisher
                return seen

        self.assertEqual(asyncio.run(run()), list(range(COUNT)))

    def test_a_lost_connection_repeats_the_publish_with_the_same_id(self) -> None:
        ids: list[str] = []

        class Lossy(httpx.HTTPTransport):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                response = super().handle_request(request)
                ids.append(request.content.decode())
                if len(ids) == 1:
                    response.close()
                    raise httpx.ReadError("the answer is lost")
                return response

        with Fanfare(URL, http=httpx.Client(transport=Lossy())) as hub:
            self.assertEqual(hub.publish(self.topic, 1).sequence, hub.publish(self.topic, 2).sequence - 1)
        self.assertEqual(ids[0], ids[1])


if __name__ == "__main__":
    unittest.main()
