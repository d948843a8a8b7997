"""Ships what was billed."""


def handle(context, bill):
    print("shipping order", bill["order"])
