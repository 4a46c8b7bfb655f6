"""Running graphs: ``reference`` (the meaning, in reals), ``integer`` (the meaning, in integers), ``cpu`` (the fast
one).
"""
