"""The texts that a model is calibrated on, unless its owner gives some: short ones and long ones of many kinds.

Ranges are set by what is rare: the first token of a text, line ends, digits, code, other scripts, one token again and
again. So there is a little of each, and of every kind one long enough to fill a context. Written for this purpose. It
must not know models.
"""

from __future__ import annotations

PROSE = """\
The ferry left at six, before the fog had lifted from the harbour, and nobody on the quay could say afterwards who had
been aboard. Marta counted the crates twice. Forty-one, she wrote, and under it, because she was careful: forty-one.
When the lamp on the breakwater went out she thought of her brother, who used to say that a light is only a promise
somebody keeps every night. Then the bell rang, the ropes fell slack, and the old engine began to complain again.
"""

ESSAY = """\
It is often said that measurement is the beginning of knowledge, but every measurement begins with a decision about what
to ignore. A map that showed each blade of grass would be as large as the meadow and of no use to somebody who wants to
cross it. The craft lies in leaving out the right things. Engineers call this a tolerance, judges call it relevance, and
painters do not call it anything, because they have already turned the canvas to the wall and started over.
"""

NEWS = """\
LISBON - The central bank left its key rate at 3.25 percent on Thursday, as 34 of 41 economists had expected. Inflation
fell to 2.1% in October from 2.4% in September; unemployment rose by 0.2 points to 6.7%. "We are not declaring victory,"
the governor told reporters. Shares closed up 118.42 points, or 1.9%, at 6,311.07; the euro traded at $1.0841.
"""

PYTHON = '''\
import json
from collections import defaultdict

class Ledger:
    """Keeps what each account has, in cents."""

    def __init__(self, path="ledger.json"):
        self.path, self.cents = path, defaultdict(int)

    def pay(self, who: str, whom: str, cents: int) -> None:
        if cents <= 0 or self.cents[who] < cents:
            raise ValueError(f"{who!r} cannot pay {cents / 100:.2f}")
        self.cents[who] -= cents
        self.cents[whom] += cents

    def save(self):
        with open(self.path, "w") as f:
            json.dump({k: v for k, v in sorted(self.cents.items())}, f, indent=4)


for i in range(10):
    print(i, [x ** 2 % 7 for x in range(i)], "\\t", {"a": i << 2, 'b': ~i})
'''

C_CODE = """\
#include <stdint.h>
#define ROT(x, n) (((x) << (n)) | ((x) >> (64 - (n))))
static inline uint64_t mix(uint64_t *restrict s, const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; ++i) { s[i & 3] ^= p[i]; s[(i + 1) & 3] += ROT(s[i & 3], 23) * 0x9E3779B97F4A7C15ULL; }
    return s[0] ^ s[1] ^ s[2] ^ s[3];   // not a hash for anything that matters
}
"""

MARKUP = """\
<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Orders</title></head><body>
<table class="wide"><tr><th>id</th><th>item</th><th>price</th></tr><tr><td>17</td><td>kettle</td><td>&euro;24.90</td>
</tr></table><a href="https://shop.example.org/cart?id=17&ref=mail#top">go on</a></body></html>
{"orders": [{"id": 17, "lines": [{"sku": "KT-0099", "n": 2, "price": 24.9}], "paid": false, "note": null}], "page": 1}
SELECT c.name, SUM(o.total) FROM orders o JOIN customers c ON c.id = o.customer WHERE o.day >= '2024-01-01' GROUP BY 1;
"""

NUMBERS = """\
3.14159265358979 2.71828182845904 1.41421356237310 0.57721566490153 1.61803398874989 -273.15 6.02214076e23 1.602e-19
1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4181, 6765, 10946, 17711, 28657, 46368
12 + 7 = 19; 144 / 12 = 12; 17 * 23 = 391; 1000000 - 1 = 999999; 2^10 = 1024; 0xFF = 255; 0b1011 = 11; 50% of 90 is 45
2024-02-29T23:59:60Z +44 20 7946 0958 10.0.0.255/24 4f1a-99c0-77de 0000000000000000 9999999999999999 1/3 = 0.33333333333
"""

LISTS = """\
# Before the trip

1. Passport, tickets, insurance
2. Chargers
   - phone
   - camera (and the spare battery!)
3. Medicine: **twice a day**, *not* with milk

| day | place    | km  |
|-----|----------|-----|
| Mon | Bergen   | 0   |
| Tue | Voss     | 102 |

- [x] water the plants
- [ ] cancel the newspaper
> "Travel light," he said, and carried four bags.
"""

LANGUAGES = (
    "Der Zug nach München fährt heute von Gleis 12 ab; wegen Bauarbeiten kommt er etwa zwölf Minuten später.",
    "Le café était fermé, mais la boulangère nous a donné deux croissants encore chauds et un sourire de trop.",
    "El ingeniero explicó, por tercera vez, que la presión no depende del ancho del tubo sino de la altura del agua.",
    "Утром в горах выпал первый снег, и дорогу закрыли до полудня. Никто не удивился.",
    "今天早上下了大雨,地铁站里挤满了人。老师说:“没关系,我们十点再开始。”",
    "昨日は友達と海へ行きました。風が強かったけれど、とても楽しかったです。",
    "오늘 회의는 세 시로 연기되었습니다. 자료는 메일로 보내 드리겠습니다.",
    "كان البحر هادئا في ذلك الصباح، وكانت السفن تنتظر خارج الميناء.",
    "आज बाज़ार में आम बहुत सस्ते हैं, लेकिन बारिश की वजह से सड़कें खाली हैं।",
    "Ο καθηγητής έγραψε στον πίνακα: α² + β² = γ², και έφυγε χωρίς άλλη λέξη.",
)

CHAT = (
    "What is the capital of France?",
    "Write a short poem about a lighthouse keeper who collects clocks.",
    "My code prints `TypeError: 'NoneType' object is not subscriptable`. What is the cause?",
    "List five differences between rain and snow, one per line, each with a number.",
    'Translate to Spanish: "Where did you leave the keys?" Then explain the tenses.',
    "hi",
)

REPEATED = (
    "the " * 200,
    "." * 160,
    "a a a a b b b b " * 24,
    "0" * 96,
    "\n" * 48 + "end",
    "ha" * 90 + "!" * 40,
    "        " * 30 + "x",
    "!?" * 60,
)

SHORT = (
    "Yes.", "7", "A", "The", "\u00e9", "😀 🎉 🚀", "The capital of France is", "def f(x):", "No, thank you!", "http://",
    "An uncommonly good film, if a little long: warm, funny and, in its last half hour, quietly devastating.",
    "A dull, loud, endless mess. I want my two hours back.",
    "Once upon a time there was a little girl named Lily, who loved to play outside in the park with her dog.",
    "4752", "9999", "0000", "1000", "5050", "CABBAC", "ABCCBA", "AAAAAA", "BCBCBC",
)  # fmt: skip

LONG = (
    PROSE + "\n" + ESSAY + "\n" + NEWS + "\n" + LISTS,
    PYTHON + "\n" + C_CODE + "\n" + MARKUP,
    NUMBERS + LISTS + NUMBERS,
    "\n".join(LANGUAGES) + "\n" + ESSAY,
)

TEXTS = (
    *SHORT,
    PROSE,
    ESSAY,
    NEWS,
    PYTHON,
    C_CODE,
    MARKUP,
    NUMBERS,
    LISTS,
    *LANGUAGES,
    *REPEATED,
    *LONG,
)
