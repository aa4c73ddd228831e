"""Change between two dates: from a scene's probabilities to mask, polygons, figures and report.

A Job of kind ``predict`` whose task has :attr:`Task.pair` and the one output ``change`` may name:

Inputs: ``before``, ``after``: ``{"path", "bands"}``; ``reference`` (optional): the true changes, a raster
(``bands``: one or none; 0 = no change, else change, nodata = unknown) or a polygon layer.

Params beside those of every raster run (``align``, ``match_radiometry``, ``stretch_min``,
``stretch_max``, ``date_before``, ``date_after``, ``tile``, ``overlap``, ``batch``, ``cog``): ``threshold``
0..1 (0 or missing = the task's, which may be Otsu's), ``min_area`` in m2 (-1 or missing = the task's, 0 =
none), ``simplify`` in m (0), ``regularise`` (false), ``max_hole`` in m2 (0), ``resample`` (only false).

Outputs: ``mask`` (GeoTIFF, uint8: 1 change, 0 none, 255 nodata) and ``probability`` (GeoTIFF, float32,
nodata -9999), both always; ``polygons`` (FlatGeobuf with polygons_features.POLYGON_FIELDS) and ``report``
(HTML) where they are named. All of them appear, or none.

Figures beside those of every raster run: ``count``: polygons. ``change``: ``threshold``,
``threshold_source`` (``parameter``, ``model`` or ``otsu``), ``changed_pixels``, ``valid_pixels``,
``share``, ``area_m2`` (None without a place on Earth), ``min_area_m2``, ``simplify_m``, ``regularise``,
``max_hole_m2``, ``sizes`` {``edges_m2``, ``counts``}, ``largest`` [{``id``, ``area_m2``, ``p_mean``,
``x``, ``y``, ``lon``, ``lat``}, at most 10]. ``quality`` with a reference: ``reference``, ``kind``
(``raster`` or ``polygons``), ``pixels``, ``tp``, ``fp``, ``fn``, ``tn``, ``precision``, ``recall``,
``f1``, ``iou``, ``kappa`` (None where they mean nothing), ``notes``.
"""
