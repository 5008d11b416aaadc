"""`report`: a page about calls, tokens and balances, for people.

`figures` reads the database, `plots` draws with matplotlib, `page` writes the HTML with Jinja2.
"""
