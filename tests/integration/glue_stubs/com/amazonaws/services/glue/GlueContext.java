package com.amazonaws.services.glue;

/** Stands where AWS's own class stands on Glue; awsglue makes one from the Spark context. */
public class GlueContext {
    public GlueContext(Object sparkContext) {}
}
