"""Data sets by name: getting, reading, checking and loading them.

Imports within this folder run downwards, which import-linter holds:

    config                                   which data sets there are
    checks                                   what would make training fail, found before it does
    loading, formats                         images and crops for networks; a file or folder for each kind of data set
    getting                                  downloads of public data sets
    class_lists                              two lists of class names, matched by name
    options, pairs, dataset                  what every data set has: its keys, its files' names, its samples
    the others                               these know nothing of data sets
"""
