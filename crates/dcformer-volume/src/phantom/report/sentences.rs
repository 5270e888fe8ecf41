//! Sentences in the manner of CT-RATE's reports.
//!
//! Facts that a sentence may ask for: `{degree}`, `{side}`, `{where}` ("in the right lower lobe"), `{place}`, `{form}`,
//! `{size}`, `{amount}`.

/// Organ systems in the order of most reports: mediastinum, lungs, pleura, upper abdomen, bones and devices.
pub(super) const SYSTEMS: [&[usize]; 5] = [
    &[1, 2, 3, 4, 6],
    &[7, 8, 9, 10, 11, 13, 14, 15, 16, 17],
    &[12],
    &[5],
    &[0],
];

/// Plain statements of a finding, the words of structured reports.
pub(super) const PLAIN_PRESENT: [&str; 6] = [
    "{name} is present.",
    "{name} is present.",
    "{name} is observed.",
    "There is {name}.",
    "Signs of {name} are detected in the image.",
    "Indication of {name}.",
];

/// Plain statements of absence.
pub(super) const PLAIN_ABSENT: [&str; 6] = [
    "{name} is not present.",
    "{name} is not present.",
    "{name} is not observed.",
    "There is no {name}.",
    "Signs of {name} are not detected in the image.",
    "No indication of {name}.",
];

/// Sentences about what is there, by abnormality.
pub(super) const PRESENT: [&[&str]; 18] = [
    &[
        "Medical material is observed: {form}.",
        "A {form} is seen.",
        "There is an appearance of {form} belonging to medical material.",
        "Hyperdense medical material consistent with {form} was observed.",
        "{form} is present in the chest wall and thorax.",
    ],
    &[
        "Calcified atherosclerotic plaques are observed in the wall of the {place}.",
        "{degree} arterial wall calcification is seen in the {place}.",
        "Atherosclerotic wall calcifications were observed in the {place}.",
        "There are millimetric and coarse calcific atheroma plaques in the walls of the {place}.",
        "Arterial wall calcification is observed in the {place}.",
    ],
    &[
        "Heart size has increased.",
        "The heart is larger than normal and the cardiothoracic ratio has increased in favor of the heart.",
        "{degree} cardiomegaly is observed.",
        "The cardiothoracic index has increased, consistent with cardiomegaly.",
        "Heart sizes are {degree} increased.",
    ],
    &[
        "Pericardial effusion measuring {size} in thickness is observed.",
        "There is {degree} pericardial effusion.",
        "Fluid is seen in the pericardial space, measuring {size} at its thickest point.",
        "Pericardial effusion surrounding the heart was observed.",
    ],
    &[
        "Calcified atheroma plaques are observed in the {place}.",
        "{degree} coronary artery wall calcification is seen in the {place}.",
        "Coronary artery calcifications were observed.",
        "There are calcific plaques in the walls of the coronary arteries.",
        "Wall calcifications are observed in the coronary arteries.",
    ],
    &[
        "Hiatal hernia measuring {size} is observed at the lower end of the esophagus.",
        "There is a {degree} sliding type hiatal hernia.",
        "The stomach is herniated into the thorax through the esophageal hiatus, consistent with hiatal hernia.",
        "Hiatal hernia with {form} content is seen behind the heart.",
    ],
    &[
        "Enlarged lymph nodes are observed in the {place} and other mediastinal stations, the largest measuring {size}.",
        "{amount} lymphadenopathies reaching {size} in short axis are seen in the mediastinum.",
        "Mediastinal and hilar lymphadenopathy is observed.",
        "Lymph nodes of pathological size, the largest {size}, were observed in the {place} area.",
        "There are lymph nodes in the mediastinum with a short axis up to {size}.",
    ],
    &[
        "{degree} {form} emphysema is observed in both lungs, more prominent in the upper lobes.",
        "Emphysematous changes are seen in both lungs.",
        "There are {form} emphysema areas and air cysts in the upper lobes of both lungs.",
        "Emphysematous changes and bulla formations were observed in both lungs.",
        "Aeration of both lungs has increased, consistent with {degree} emphysema.",
    ],
    &[
        "{form} atelectasis is observed {where}.",
        "There are {form} atelectatic changes {where}.",
        "Bands of atelectasis are seen at the lung bases.",
        "{degree} atelectasis causing volume loss was observed {where}.",
        "{form} atelectasis areas are seen in the basal segments.",
    ],
    &[
        "{amount} {form} nodules are observed {where}, the largest measuring {size}.",
        "A {form} nodule with a diameter of {size} is seen {where}.",
        "Pulmonary nodules are observed, the largest one measuring {size}.",
        "There are nodular lesions {where} with a diameter of up to {size}.",
        "Lung nodule measuring {size} was observed {where}.",
    ],
    &[
        "{form} ground glass opacities are observed {where}.",
        "{degree} ground glass density increases are seen {where}.",
        "There are {amount} areas of ground-glass opacity {where}.",
        "Lung opacity in the form of {form} ground glass is observed {where}.",
        "Ground glass areas through which vessels are visible were observed {where}.",
    ],
    &[
        "Pulmonary fibrotic sequelae are observed {where}.",
        "Pleuroparenchymal sequela bands are seen {where}.",
        "There are {degree} fibrotic sequela changes and pleural thickening {where}.",
        "Sequela fibrotic recessions and reticular densities were observed {where}.",
        "Fibrotic bands extending to the pleura are observed {where}.",
    ],
    &[
        "{side} pleural effusion is observed, measuring {size} in its thickest part.",
        "There is {degree} {side} pleural effusion.",
        "Free fluid measuring {size} is seen in the {side} pleural space.",
        "{side} pleural effusion layering in the dependent part was observed.",
    ],
    &[
        "Mosaic attenuation pattern is observed in both lungs.",
        "{degree} mosaic attenuation is seen in both lungs, suggesting small airway or small vessel disease.",
        "There are mosaic density differences in the parenchyma of both lungs.",
        "A patchwork of lobules of increased and decreased density was observed, consistent with mosaic attenuation pattern.",
    ],
    &[
        "Peribronchial thickening is observed in both lungs.",
        "{degree} thickening of the bronchial walls is seen.",
        "There are peribronchial thickness increases in both lungs.",
        "Bronchial wall thickening was observed in the central bronchi.",
    ],
    &[
        "Consolidation with air bronchograms is observed {where}.",
        "There is a consolidation area of {size} {where}.",
        "{degree} consolidation is seen {where}.",
        "Consolidated parenchyma containing air bronchogram signs was observed {where}.",
        "Consolidation areas are observed {where}.",
    ],
    &[
        "{form} bronchiectasis is observed {where}.",
        "There are bronchiectatic changes {where}.",
        "{degree} dilatation of the bronchi is seen {where}, consistent with bronchiectasis.",
        "Bronchi {where} are wider than the accompanying artery, bronchiectasis.",
    ],
    &[
        "Interlobular septal thickening is observed in both lungs.",
        "{degree} thickening of the interlobular septa is seen, more prominent in the periphery.",
        "There are smooth interlobular septal thickness increases in both lungs.",
        "Thickened interlobular septa forming a network below the pleura were observed.",
    ],
];

/// Sentences about what is not there, by abnormality.
pub(super) const ABSENT: [&[&str]; 18] = [
    &[
        "No medical material was detected in the thorax.",
        "There is no medical material, catheter or device.",
        "No pacemaker, port catheter or other medical material is observed.",
    ],
    &[
        "Calibration and walls of the aorta are natural, no arterial wall calcification.",
        "No calcified plaque was observed in the wall of the aorta.",
        "There is no arterial wall calcification in the thoracic aorta.",
    ],
    &[
        "Heart size is normal.",
        "Heart contour and size are natural, no cardiomegaly.",
        "The cardiothoracic ratio is within normal limits.",
        "Cardiomegaly was not detected.",
    ],
    &[
        "Pericardial effusion was not detected.",
        "Pericardial effusion or thickening was not observed.",
        "There is no fluid in the pericardial space.",
    ],
    &[
        "No calcification was observed in the coronary arteries.",
        "Coronary artery wall calcification was not detected.",
        "There is no calcified plaque in the coronary arteries.",
    ],
    &[
        "Hiatal hernia was not detected.",
        "No hiatal hernia is seen at the esophageal hiatus.",
        "Esophagus calibration is natural, there is no hiatal hernia.",
    ],
    &[
        "No lymph node in pathological size and appearance was detected in the mediastinum.",
        "No enlarged lymph nodes in prevascular, paratracheal, subcarinal or hilar areas.",
        "Lymphadenopathy was not detected.",
        "There is no lymphadenopathy in the mediastinum and hila.",
    ],
    &[
        "There is no emphysema in the lungs.",
        "No emphysematous change was observed in the lungs.",
        "Emphysema was not detected.",
    ],
    &[
        "Atelectasis was not detected.",
        "No atelectasis or volume loss is observed.",
        "There is no atelectatic change at the lung bases.",
    ],
    &[
        "No nodule was detected in the lungs.",
        "No mass or nodule was observed in both lungs.",
        "There is no lung nodule.",
    ],
    &[
        "No ground glass opacity was observed.",
        "There is no lung opacity or infiltration.",
        "No opacity or infiltrative lesion was detected in the lungs.",
    ],
    &[
        "No sequela or fibrotic change was observed.",
        "Pulmonary fibrotic sequela was not detected.",
        "There is no fibrotic band in the apices.",
    ],
    &[
        "Pleural effusion was not detected.",
        "No pleural effusion or thickening was observed.",
        "There is no fluid in the pleural spaces.",
    ],
    &[
        "Mosaic attenuation was not detected.",
        "Density of the parenchyma is homogeneous, no mosaic attenuation pattern.",
        "There is no mosaic attenuation in the lungs.",
    ],
    &[
        "Peribronchial thickening was not detected.",
        "Bronchial walls are of normal thickness.",
        "There is no peribronchial thickness increase.",
    ],
    &[
        "Consolidation was not detected.",
        "No consolidation area was observed in the lungs.",
        "There is no consolidation.",
    ],
    &[
        "Bronchiectasis was not detected.",
        "No bronchial dilatation was observed.",
        "There is no bronchiectasis, calibration of the bronchi is natural.",
    ],
    &[
        "Interlobular septal thickening was not detected.",
        "No thickening of the interlobular septa was observed.",
        "There is no septal thickness increase.",
    ],
];

/// Short sentences for the impression, by abnormality.
pub(super) const SUMMARY: [&[&str]; 18] = [
    &["Medical material: {form}.", "Appearance of {form}."],
    &[
        "Arterial wall calcification.",
        "Atherosclerotic changes of the aorta.",
        "{degree} arterial wall calcification.",
    ],
    &[
        "Cardiomegaly.",
        "{degree} cardiomegaly.",
        "Increased heart size.",
    ],
    &["Pericardial effusion.", "{degree} pericardial effusion."],
    &[
        "Coronary artery wall calcification.",
        "Coronary atherosclerosis.",
        "Calcified plaques in the coronary arteries.",
    ],
    &["Hiatal hernia.", "{degree} hiatal hernia."],
    &[
        "Lymphadenopathy.",
        "Mediastinal lymphadenopathies.",
        "Enlarged mediastinal lymph nodes.",
    ],
    &[
        "Emphysema.",
        "{degree} emphysema in both lungs.",
        "Emphysematous changes in the lungs.",
    ],
    &[
        "Atelectasis {where}.",
        "{form} atelectasis.",
        "Atelectatic changes in the lower zones.",
    ],
    &[
        "Lung nodule measuring {size}.",
        "Pulmonary nodules, follow-up is recommended.",
        "{form} nodules {where}.",
    ],
    &[
        "Ground glass opacities {where}.",
        "Lung opacity, infectious process is considered.",
        "{degree} lung opacities.",
    ],
    &[
        "Pulmonary fibrotic sequelae.",
        "Sequela changes {where}.",
        "Fibrotic sequela {where}.",
    ],
    &["{side} pleural effusion.", "{degree} pleural effusion."],
    &[
        "Mosaic attenuation pattern.",
        "Mosaic attenuation in both lungs, possibly small airway disease.",
    ],
    &[
        "Peribronchial thickening.",
        "{degree} bronchial wall thickening.",
    ],
    &[
        "Consolidation {where}.",
        "Consolidation consistent with pneumonia.",
        "{degree} consolidation.",
    ],
    &["Bronchiectasis.", "{form} bronchiectasis {where}."],
    &[
        "Interlobular septal thickening.",
        "{degree} interlobular septal thickening, findings of congestion?",
    ],
];

/// Sentences about normal structures, by system.
pub(super) const NORMAL: [&[&str]; 5] = [
    &[
        "Trachea and both main bronchi are open.",
        "Mediastinal main vascular structures are natural.",
        "Thoracic esophagus calibration is normal.",
    ],
    &[
        "Both lungs were evaluated in the parenchyma window.",
        "Pulmonary vascular structures are natural.",
    ],
    &[],
    &[
        "Upper abdominal organs included in the sections are normal.",
        "Liver and spleen are natural in the sections.",
        "Adrenal glands are natural.",
    ],
    &[
        "Bone structures in the study area are natural.",
        "Vertebral corpus heights are preserved.",
        "No lytic or destructive lesion was observed in the bones.",
    ],
];
