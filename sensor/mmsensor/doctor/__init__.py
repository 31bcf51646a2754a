"""`mmsensor doctor`: everything the sensor needs of its machine, in order, one fact and one fix each.

It needs no running sensor, no rights and no valid configuration. What it cannot find out it says so.
"""
