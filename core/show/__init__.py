"""What a picture shows, as arrays: colours, outlines, scenes, profiles."""
