"""A human preference study: what is shown, the votes, and what they say."""
