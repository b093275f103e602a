"""What a model is asked about: texts to be summarised or corrected, code to be edited, texts to be continued."""

from __future__ import annotations

BRIDGE = """The old bridge over the river Aller was closed to cars on Monday. Engineers of the town found cracks in two
of its four stone pillars during a routine inspection in spring, and since then the cracks have grown by almost a
centimetre. Pedestrians and cyclists may still use the bridge, but buses take the new road by the harbour. The
mayor, Ines Falk, said that repairs will begin in September and cost about three million euros, of which the
state pays half. Shop owners on the east bank fear for their business, because most of their customers come
from the other side."""

BEES = """Honey bees tell each other where flowers are by dancing. A bee that has found food returns to the hive and
runs in a figure of eight on the comb. The middle part of the dance, in which she waggles her body, points in
the direction of the food, measured against the sun, and the longer it lasts the farther away the food is.
Other bees follow the dancer in the dark, touch her with their antennae and fly off to the place that she
described. Karl von Frisch discovered the dance and received a Nobel Prize for it in 1973."""

MEETING = """Notes of the meeting on 4 March. Present: Ada, Ben, Chitra and Dmitri. The new website goes online on 20
March. Ben tests the search until 10 March. Chitra writes the texts for the start page until 12 March, and Ada
translates them into French and German until 16 March. Dmitri asks the printers for an offer for 500 leaflets.
The budget of 4,000 euros is enough if the leaflets cost less than 600 euros. The next meeting is on 18 March
at ten o'clock."""

AREAS = """def area_of_rectangle(width, height):
    if width < 0 or height < 0:
        raise ValueError("sides must not be negative")
    return width * height


def area_of_triangle(base, height):
    if base < 0 or height < 0:
        raise ValueError("sides must not be negative")
    return base * height / 2


def area_of_circle(radius):
    if radius < 0:
        raise ValueError("radius must not be negative")
    return 3.14159 * radius * radius"""

STACK = """class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        return self.items.pop()

    def peek(self):
        return self.items[-1]

    def is_empty(self):
        return len(self.items) == 0"""

WORDS = """def count_words(path):
    counts = {}
    with open(path) as file:
        for line in file:
            for word in line.split():
                word = word.lower()
                if word in counts:
                    counts[word] = counts[word] + 1
                else:
                    counts[word] = 1
    return counts"""

DIALOGUE = """Anna: Good morning! How many apples would you like today?
Tom: Good morning! I would like three apples, please.
Anna: Here are three apples. How many pears would you like today?
Tom: I would like two pears, please.
Anna: Here are two pears. How many plums would you like today?
Tom:"""

LIST = """Monday: open the shop at nine, water the plants, count the money, close the shop at six.
Tuesday: open the shop at nine, water the plants, order new paper, close the shop at six.
Wednesday: open the shop at nine, water the plants,"""

STORY = """Once upon a time there was a little rabbit who lived under an old oak tree. Every morning the little rabbit
hopped down to the river to drink, and every morning he met the same grey heron. "Good morning, little rabbit," said the
heron. "Good morning, heron," said the little rabbit. One day"""

ASKED = {  # of a model that chats
    "summarise": [f"Summarise this text in two sentences.\n\n{text}" for text in (BRIDGE, BEES, MEETING)],
    "edit code": [
        f"Add a docstring to each function of this code, and repeat all of it.\n\n{AREAS}",
        f"Rename the class to Pile and repeat the whole code.\n\n{STACK}",
        f"Repeat this code with the name `result` in place of `counts`.\n\n{WORDS}",
    ],
    "correct": [
        f"Repeat this text without mistakes.\n\n{text.replace('the ', 'teh ', 2)}" for text in (BRIDGE, BEES, MEETING)
    ],
}
CONTINUED = {"continue": [DIALOGUE, LIST, STORY]}  # of any
GIVEN = [  # texts to be gone on with that repeat themselves
    "Lily had a cat. The cat was big and red. Lily loved the big red cat. Ben had a cat. The cat was big and red. "
    "Ben loved",
    'One day, Tom went to the park. He saw a big dog. The big dog said, "Hi, Tom!" Tom said, "Hi, big dog!" They '
    "played and played. The next day, Tom went to the park. He saw",
]
STORIES = ["Once upon a time", "Lily and Tom went to the park. Lily", "The little dog had a red ball. The dog"]
