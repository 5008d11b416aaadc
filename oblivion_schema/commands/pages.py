def number_of_days(a, b):
    return 30


def report(c, d): ...
