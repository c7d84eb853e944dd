"""The label list of COCO-Stuff, which its maps do not bring along: github.com/nightrome/cocostuff, labels.txt.

Ids 1..91 are things and 92..182 stuff. 11 of the things (12 street sign, 26 hat, 29 shoe, 30 eye glasses, 45 plate, 66 mirror,
68 window, 69 desk, 71 door, 83 blender, 91 hair brush) were never annotated, so 171 classes are left.
"""

THINGS = """
    person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign parking_meter bench
    bird cat dog horse sheep cow elephant bear zebra giraffe - backpack umbrella - - handbag tie suitcase frisbee skis
    snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle - wine_glass cup fork
    knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch potted_plant bed -
    dining_table - - toilet - tv laptop mouse remote keyboard cell_phone microwave oven toaster sink refrigerator - book
    clock vase scissors teddy_bear hair_drier toothbrush -
""".split()
"""The names of the ids 1..91, "-" for those that were never annotated."""
STUFF = """
    banner blanket branch bridge building-other bush cabinet cage cardboard carpet ceiling-other ceiling-tile cloth clothes
    clouds counter cupboard curtain desk-stuff dirt door-stuff fence floor-marble floor-other floor-stone floor-tile
    floor-wood flower fog food-other fruit furniture-other grass gravel ground-other hill house leaves light mat metal
    mirror-stuff moss mountain mud napkin net paper pavement pillow plant-other plastic platform playingfield railing
    railroad river road rock roof rug salad sand sea shelf sky-other skyscraper snow solid-other stairs stone straw
    structural-other table tent textile-other towel tree vegetable wall-brick wall-concrete wall-other wall-panel wall-stone
    wall-tile wall-wood water-other waterdrops window-blind window-other wood
""".split()
"""The names of the ids 92..182."""
NAMES = {number: name.replace("_", " ") for number, name in enumerate(THINGS + STUFF, 1) if name != "-"}
"""The name of each of the 171 ids in use; those up to 91 are things."""
