"""Owns the tests of the parser."""

import unittest

from fanfare_client._parser import Block, Parser

TEXT = (
    "\ufeff: a comment\nretry: 12\nevent: note\ndata: Grüße, 世界 🦀\u2028\x85\ndata:  b\nid: 1\n\n"
    "id: 2\n\nid: a\0b\ndata\n\nevent: lost\n\ndata: unfinished\n"
)
BLOCKS = [
    Block("note", "Grüße, 世界 🦀\u2028\x85\n b", "1"),
    Block("", "", "2"),
    Block("message", "", "2"),
]


class ParserTest(unittest.TestCase):
    def test_blocks_are_the_same_however_the_bytes_are_cut_with_every_line_end(self) -> None:
        for end in ("\n", "\r\n", "\r"):
            data = TEXT.replace("\n", end).encode()
            for size in range(1, 50):
                parser = Parser()
                pieces = [data[at : at + size] for at in range(0, len(data), size)]
                blocks = [block for piece in pieces for block in parser.feed(piece)]
                self.assertEqual(blocks, BLOCKS, (end, size))
                self.assertEqual(parser.retry_ms, 12)


if __name__ == "__main__":
    unittest.main()
