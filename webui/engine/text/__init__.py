"""How text becomes numbers for encoders beside CLIP's: vocabularies that ship, and large language models' states."""
