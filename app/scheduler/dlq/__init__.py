"""Dead letters: what a person, a program or a browser does with them.

The transport writes them (:mod:`kombu_kafka.publishing.dead_letters`); here they are read, counted, replayed
and skipped. Nothing in a letter is ever imported, evaluated or unpickled.
"""
