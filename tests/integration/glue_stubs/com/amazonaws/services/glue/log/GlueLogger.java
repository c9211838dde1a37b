package com.amazonaws.services.glue.log;

/** Stands where AWS's own class stands on Glue. */
public class GlueLogger {}
