#!/usr/bin/env python3
"""Writes agreement.jsonl: which verb form goes with which pronoun in early modern English, a task of the bundled
model's domain. Every combination of opening, pronoun and verb once; the right form's place rotates.

Usage: make_agreement.py > agreement.jsonl
"""

import itertools
import json

OPENINGS = ["I know that ", "They say ", "Good sir, ", "But tell me, if ", "By heaven, "]
FORMS = {
    "be": {"thou": "art", "he": "is", "she": "is", "I": "am", "we": "are"},
    "have": {"thou": "hast", "he": "hath", "she": "hath", "I": "have", "we": "have"},
    "do": {"thou": "dost", "he": "doth", "she": "doth", "I": "do", "we": "do"},
}


def main():
    number = 0
    for (verb, forms), opening, pronoun in itertools.product(FORMS.items(), OPENINGS, ["thou", "he", "she", "I", "we"]):
        choices = list(dict.fromkeys(forms.values()))
        choices = choices[number % len(choices) :] + choices[: number % len(choices)]
        prompt = f"FIRST LORD:\n{opening}{pronoun}"
        print(json.dumps({"prompt": prompt, "choices": [c + " not" for c in choices],
                          "answer": choices.index(forms[pronoun]), "group": verb}))
        number += 1


if __name__ == "__main__":
    main()
