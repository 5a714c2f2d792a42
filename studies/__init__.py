"""The trainings that the book's chapters compare, as data, and the one mechanism that makes them: `make studies`.

study        which rows a table has, and the loop that trains, measures and keeps what is missing
rates        one VAE under constant and rising beta, three temperatures, other sizes       chapters 2, 3, 6
variants     the document's pair, under other readings, without each mechanism, nudged    chapters 1, 3 to 7, 9
couplings    other couplings, the boundary of collapse, the game                           chapter 4
phases       the document's schedules and others                                           chapter 7
generators   untrained and hand-written decoders, Sobol samples, importance sampling       chapters 1, 9
whole_runs   runs of the notebook of chapter 8, settings times seeds                       chapter 9
reports      the complete evaluation of a pair                                             chapter 9
single       one VAE alone, what a pair is compared with
minibatch    what codes say, estimated from a batch alone                                  chapter 6
tables       the tables in results/experiments, written and read
catalogue    all studies by the name of their table; `__main__` and Snakefile run them"""
