"""What freshness is worth: any dataset played in time order, with each clock switched on and off.

`timeline` holds the data, `clocks` names what may tick, `models` and `baselines` tick through the
functions of the DAGs, `play` foresees each event before it is learned, `report` says what came out.
`periods` plays files of sessions by the protocol of continual learning.
"""
