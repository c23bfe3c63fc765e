"""The only translator between messages and nouns, and between errors and gRPC status.

`encode_x(noun)` makes a message and trusts the noun; `decode_x(message)` trusts nothing: a REQUIRED field that is
missing, an unknown enum, a number or a size outside its bound raises WireInvalid with the path to the field. Free
text for people is cut to its bound when sent, and made one printable line on both sides.

    common      roles, phases, marks, histograms, phase load; what a push to LoadService holds
    node        NodeService: greetings, grants, renewals, reports, the inventory
    engine      EngineControl: hellos, orders, progress, loads
    operator    ControllerService: what an operator asks, and decisions
    status      ControllerService: the whole picture
    errors      RapidError to gRPC status and back
    fields      the bounds of every field, and the checks
"""
