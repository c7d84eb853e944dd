"""Where a model errs, what it looked at, and whether that is to be believed. `explain.py` is the engine; it puts the other files
together in this order, each step handed the same `context`:

survey                        all error regions: labelling, regions (extent: how thick; bridges: merge and split), modes
selection, controls           which of them are explained, and a correct region matched to each
interview                     the network is asked: look, gradcam, local_backward (grid: where a layer's cells lie)
evidence, measures            what its maps say
paired                        errors against controls
sanity                        may the maps be believed: randomised weights, deletion
clusters                      errors that go wrong alike: features, cluster_names
attributes, bias              errors and surroundings: associations, permutation; interventions, donors: is the suspected cause one
segments                      the same true segments for every model; versus: two models on them
tables, cost_intervals        what the errors cost, and how sure that is
findings, summary             the most important things in words; the files of failures/<experiment>/
pictures, page                reports/<experiment>/failures/index.html
"""
