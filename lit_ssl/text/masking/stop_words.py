"""English function words, by class: what a sentence says little with."""

from __future__ import annotations

__all__ = ["STOP_WORDS"]

_ARTICLES_AND_DETERMINERS = """
    a an the this that these those some any each every either neither no all both such another other
    same own
"""
_PRONOUNS = """
    i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his
    himself she her hers herself it its itself they them their theirs themselves who whom whose
    which what someone somebody something anyone anybody anything everyone everybody everything
    nobody nothing none others
"""
_PREPOSITIONS = """
    about above across after against along amid among amongst around as at before behind below
    beneath beside besides between beyond by down during except for from in inside into like
    near of off on onto out outside over past per since than through throughout till to
    toward towards under underneath until up upon via with within without
"""
_CONJUNCTIONS = """
    and or but nor so yet if because although though unless while whereas whether when where why how
    whenever wherever
"""
_AUXILIARIES = """
    am is are was were be been being do does did doing done have has had having can could may might
    must shall should will would ought need cannot
"""
_PARTICLES_AND_ADVERBS = """
    not there here then thus hence just only also too very quite rather even still already ever
    never again once more most less least much many few well now away further almost
"""
# Pieces that are left when a tokenizer splits at the apostrophe of n't, 's, 'll and the like.
_PIECES = (
    "s t d m re ve ll don doesn didn isn aren wasn weren hasn haven hadn won wouldn couldn shouldn"
)

STOP_WORDS = frozenset(
    " ".join(
        (
            _ARTICLES_AND_DETERMINERS,
            _PRONOUNS,
            _PREPOSITIONS,
            _CONJUNCTIONS,
            _AUXILIARIES,
            _PARTICLES_AND_ADVERBS,
            _PIECES,
        )
    ).split()
)
