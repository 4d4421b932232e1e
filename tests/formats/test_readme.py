"""The examples in the package's README give the results that it shows."""

import doctest
import re
from pathlib import Path

README = Path(__file__).parents[2] / "packages" / "formats" / "README.md"


def test_the_examples_in_the_readme_work():
    text = re.sub(r"^```.*$", "", README.read_text(), flags=re.MULTILINE)
    examples = doctest.DocTestParser().get_doctest(text, {}, "README", str(README), 0)
    assert len(examples.examples) > 10
    assert doctest.DocTestRunner().run(examples).failed == 0
